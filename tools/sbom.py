"""Write an image's bill of materials (CycloneDX, JSON) from what tools/sbom.sh found in it.

    python tools/sbom.py IMAGE.json INVENTORY.json OUT.json

The same image gives the same bytes: its time is that of the image, its serial number is drawn from the image's id.
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.contrib.this.builders import this_component
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License, LicenseAcknowledgement
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.utils import canonicalize_name

from algorithm.files import replacing

OURS = "decathlon-unet"
LONGEST_LICENCE = 100  # characters; some packages put the whole text where a name belongs


def licences(package: dict[str, Any]) -> list[License]:
    """Return what a Python package declares: an SPDX expression, else its classifiers, else a name."""
    named = [one.rpartition(" :: ")[2] for one in package["classifiers"]]
    if package["expression"]:
        declared = [package["expression"]]
    elif named:
        declared = named
    else:
        declared = [package["licence"]] if 0 < len(package["licence"] or "") <= LONGEST_LICENCE else []
    make = LicenseFactory().make_from_string
    return [make(one, license_acknowledgement=LicenseAcknowledgement.DECLARED) for one in declared]


def bundled(package: dict[str, Any], owner: str) -> Iterator[Component]:
    """Yield what the wheel's own bills of materials name beside the package itself."""
    seen: set[tuple[str, str | None]] = set()
    for one in (one for text in package["sboms"] for one in json.loads(text).get("components", ())):
        purl = PackageURL.from_string(one["purl"]) if "purl" in one else None
        itself = (
            purl
            and purl.type == "pypi"
            and canonicalize_name(purl.name) == canonicalize_name(package["name"])
        )
        if itself or (one["name"], one.get("version")) in seen:
            continue
        seen.add((one["name"], one.get("version")))
        yield Component(
            name=one["name"],
            version=one.get("version"),
            type=ComponentType.LIBRARY,
            purl=purl,
            bom_ref=f"{owner}#{len(seen)}",
        )


def of_python(package: dict[str, Any], hashes: dict[tuple[str, str], str]) -> Component:
    """Return a Python package; `hashes` are the wheels' SHA-256 by name and version."""
    name = canonicalize_name(package["name"])
    purl = PackageURL("pypi", None, name, package["version"])
    digest = hashes.get((name, package["version"]))
    return Component(
        name=package["name"],
        version=package["version"],
        type=ComponentType.LIBRARY,
        purl=purl,
        bom_ref=str(purl),
        licenses=licences(package),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)] if digest else (),
        components=bundled(package, str(purl)),
    )


def of_debian(package: dict[str, str], release: str) -> Component:
    """Return a Debian package; advisories go by the source package, so its URL names that."""
    source = package.get("source", package["package"]).split()[0]
    qualifiers = {"arch": package["architecture"], "distro": f"debian-{release}", "upstream": source}
    purl = PackageURL("deb", "debian", package["package"], package["version"], qualifiers)
    name, version = package["package"], package["version"]
    return Component(name=name, version=version, type=ComponentType.LIBRARY, purl=purl, bom_ref=str(purl))


def document(image: dict[str, Any], inventory: dict[str, Any]) -> Bom:
    """Return the bill of materials of an image, from the engine's description and the inventory inside."""
    identity = image["Id"].removeprefix("sha256:")
    hashes = {(name, version): digest for name, version, digest in inventory["pins"]}
    system = inventory["system"]
    packages = {canonicalize_name(one["name"]): one for one in inventory["python"]}
    root = Component(
        name=OURS,
        version=packages[OURS]["version"],
        type=ComponentType.CONTAINER,
        bom_ref="image",
        properties=[Property(name=f"{OURS}:image-id", value=f"sha256:{identity}")],
    )
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_OID, identity))
    bom.metadata.timestamp = datetime.fromisoformat(image["Created"])
    bom.metadata.tools.components.add(this_component())
    bom.metadata.component = root
    bom.components.add(
        Component(
            name=system["ID"],
            version=inventory["release"],
            type=ComponentType.OPERATING_SYSTEM,
            description=system["PRETTY_NAME"],
            bom_ref="operating-system",
        )
    )
    bom.components.update(of_python(one, hashes) for one in packages.values())
    bom.components.update(of_debian(one, inventory["release"]) for one in inventory["debian"])
    bom.register_dependency(root, bom.components)
    return bom


def text_of(bom: Bom) -> str:
    """Return the JSON of a bill of materials that CycloneDX's own schema accepts."""
    text = JsonV1Dot6(bom).output_as_string(indent=2)
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise ValueError(f"the bill of materials must be valid CycloneDX 1.6: {error}")
    return f"{text}\n"


def main(image: Path, inventory: Path, out: Path) -> None:
    """Write the file."""
    (inspected,) = json.loads(image.read_text())
    text = text_of(document(inspected, json.loads(inventory.read_text())))
    with replacing(out) as part:
        part.write_text(text)


if __name__ == "__main__":
    main(*(Path(word) for word in sys.argv[1:4]))
