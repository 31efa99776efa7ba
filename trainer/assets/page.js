"use strict";

// A table whose heads are buttons sorts by the data-value of its cells; what is missing stays at the end.
function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const order = (a, b) => {
        const [p, q] = [key(a), key(b)];
        if (p === "" || q === "") return (p === "") - (q === "");
        const difference = Number(p) - Number(q);
        const sign = Number.isNaN(difference) ? p.localeCompare(q) : difference;
        return up ? sign : -sign;
      };
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort(order));
    });
  });
}

async function bytesOf(part) {
  if (part.url) {
    const answer = await fetch(part.url);
    if (!answer.ok) throw new Error(`${part.url}: ${answer.status} ${answer.statusText}`);
    return answer.arrayBuffer();
  }
  const packed = Uint8Array.from(atob(document.getElementById(part.id).textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

async function voxelsOf(part) {
  if (!part) return null;
  const bytes = await bytesOf(part);
  return part.type === "int16" ? new Int16Array(bytes) : new Uint8Array(bytes);
}

// Arrays are (z, y, x) with x to the patient's left, y to the back, z to the head. A plane is drawn as a radiologist
// sees it: the patient's right on the left, the front or the head on top.
const PLANES = [
  { name: "axial", through: 0, down: 1, across: 2, flip: false, ends: ["R", "L", "A", "P"] },
  { name: "coronal", through: 1, down: 0, across: 2, flip: true, ends: ["R", "L", "S", "I"] },
  { name: "sagittal", through: 2, down: 0, across: 1, flip: true, ends: ["A", "P", "S", "I"] },
];
const [ZOOM_STEP, MOST_ZOOM] = [1.25, 16];

class Viewer {
  constructor(root, scans) {
    this.root = root;
    this.scans = scans;
    this.opacity = 0.4;
    this.shown = { reference: true, prediction: true };
    this.filled = true;
    this.zoom = 1;
    this.held = [0, 0];
    this.turn = 0;
    this.find = (name) => root.querySelector(`[data-part="${name}"]`);
    this.planes = PLANES.map((plane) => this.makePlane(plane));
    const picker = this.find("case");
    picker.replaceChildren(...scans.map((scan, index) => new Option(scan.title, index)));
    picker.addEventListener("change", () => this.open(Number(picker.value)));
    for (const name of ["reference", "prediction"]) {
      this.find(name).addEventListener("change", (event) => {
        this.shown[name] = event.target.checked;
        this.draw();
      });
    }
    this.find("fill").addEventListener("change", (event) => {
      this.filled = event.target.checked;
      this.draw();
    });
    root.querySelectorAll("button[data-zoom]").forEach((button) => {
      button.addEventListener("click", () => this.magnify(button.dataset.zoom));
    });
    this.find("opacity").addEventListener("input", (event) => {
      this.opacity = Number(event.target.value) / 100;
      this.draw();
    });
    for (const name of ["level", "width"]) this.find(name).addEventListener("input", () => this.adjust(name));
    root.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(root);
  }

  makePlane(plane) {
    const box = this.find(plane.name);
    const canvas = box.querySelector("canvas");
    const slider = box.querySelector("input");
    const seen = { ...plane, box, canvas, slider };
    slider.addEventListener("input", () => this.move(plane.through, Number(slider.value)));
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      if (!this.ready || !event.deltaY) return;
      if (!event.ctrlKey) this.move(plane.through, this.at[plane.through] + Math.sign(event.deltaY));
      else this.magnify(event.deltaY < 0 ? "in" : "out", [seen, ...this.under(seen, event)]);
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId); // a drag may leave the plane
      this.held = this.under(seen, event);
      if (!event.shiftKey) this.point(seen, event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!this.ready || !event.buttons) return;
      if (!event.shiftKey) {
        this.held = this.under(seen, event);
        this.point(seen, event);
        return;
      }
      const [across, down] = this.under(seen, event);
      this.pan(seen, (this.held[0] - across) / this.zoom, (this.held[1] - down) / this.zoom);
      this.held = [across, down];
    });
    canvas.addEventListener("keydown", (event) => {
      const ways = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
      const pan = ways[event.key];
      if (pan && event.shiftKey) {
        event.preventDefault();
        this.pan(seen, ...pan.map((way) => way / 8 / this.zoom));
        return;
      }
      const last = this.ready ? this.scan.shape[plane.through] - 1 : 0;
      const now = this.at ? this.at[plane.through] : 0;
      const goal = { ArrowUp: now + 1, ArrowDown: now - 1, ArrowRight: now + 1, ArrowLeft: now - 1,
        PageUp: now + 10, PageDown: now - 10, Home: 0, End: last }[event.key];
      if (goal === undefined) return;
      event.preventDefault();
      this.move(plane.through, goal);
    });
    return seen;
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("select, input[type=number]")) return;
    const name = { r: "reference", p: "prediction", f: "fill" }[event.key.toLowerCase()];
    if (name && !this.find(name).disabled) this.find(name).click();
    const zoom = { "+": "in", "=": "in", "-": "out", "0": "all" }[event.key];
    if (zoom) this.magnify(zoom);
  }

  // Where a plane's picture begins, in rows and columns as drawn, and how many of them it shows.
  seen(plane) {
    const { shape } = this.scan;
    const [rows, columns] = [shape[plane.down] / this.zoom, shape[plane.across] / this.zoom];
    const middle = this.middle[plane.down];
    const top = (plane.flip ? shape[plane.down] - middle : middle) - rows / 2;
    return { top, left: this.middle[plane.across] - columns / 2, rows, columns };
  }

  // The place under the pointer as shares of a plane's picture.
  under(plane, event) {
    const edge = plane.canvas.getBoundingClientRect();
    return [(event.clientX - edge.left) / edge.width, (event.clientY - edge.top) / edge.height];
  }

  point(plane, event) {
    if (!this.ready) return;
    const [across, down] = this.under(plane, event);
    const { top, left, rows, columns } = this.seen(plane);
    const row = Math.floor(top + down * rows);
    this.at[plane.across] = Math.floor(left + across * columns);
    this.move(plane.down, plane.flip ? this.scan.shape[plane.down] - 1 - row : row);
  }

  // Zoom around the cross, or around a place of a plane, which stays where it is.
  magnify(way, place) {
    if (!this.ready) return;
    const before = this.zoom;
    const zoom = { in: before * ZOOM_STEP, out: before / ZOOM_STEP, all: 1 }[way];
    this.zoom = zoom > 1.001 ? Math.min(MOST_ZOOM, zoom) : 1;
    if (place) {
      const [plane, across, down] = place;
      const grown = 1 / before - 1 / this.zoom;
      this.pan(plane, (across - 0.5) * grown, (down - 0.5) * grown);
    } else {
      this.middle = this.at.map((value) => value + 0.5);
      this.hold();
    }
  }

  // Move what is seen, by shares of the whole plane.
  pan(plane, across, down) {
    if (!this.ready) return;
    const { shape } = this.scan;
    this.middle[plane.across] += across * shape[plane.across];
    this.middle[plane.down] += (plane.flip ? -1 : 1) * down * shape[plane.down];
    this.hold();
  }

  // Keep what is seen within the scan.
  hold() {
    this.middle = this.middle.map((value, axis) => {
      const half = this.scan.shape[axis] / this.zoom / 2;
      return Math.max(half, Math.min(this.scan.shape[axis] - half, value));
    });
    this.draw();
  }

  // What is not yet a number, or no width, leaves the window as it is.
  adjust(name) {
    const value = this.find(name).valueAsNumber;
    if (!this.ready || Number.isNaN(value) || (name === "width" && value <= 0)) return;
    this.window[name] = value;
    this.draw();
  }

  async open(index) {
    const turn = ++this.turn;
    const scan = this.scans[index];
    this.ready = false;
    this.find("case").value = String(index);
    this.root.dataset.state = "loading";
    this.find("readout").textContent = `Loading ${scan.title} …`;
    try {
      const parts = await Promise.all([scan.image, scan.reference, scan.prediction].map(voxelsOf));
      if (turn !== this.turn) return;
      [this.image, this.reference, this.prediction] = parts;
    } catch (error) {
      this.root.dataset.state = "failed";
      this.find("readout").textContent = `${scan.title} cannot be shown: ${error.message}`;
      return;
    }
    this.scan = scan;
    this.at = [...scan.start];
    this.zoom = 1;
    this.middle = scan.shape.map((size) => size / 2);
    this.window = { level: (scan.window[0] + scan.window[1]) / 2, width: scan.window[1] - scan.window[0] };
    for (const name of ["level", "width"]) {
      this.find(name).step = 10 ** Math.floor(Math.log10(this.window.width / 20));
      this.find(name).value = this.said(this.window[name]);
    }
    this.find("reference").disabled = !this.reference;
    this.find("note").textContent = scan.note;
    this.planes.forEach((plane) => { plane.slider.max = scan.shape[plane.through] - 1; });
    this.ready = true;
    this.root.dataset.state = "ready";
    this.draw();
  }

  move(axis, to) {
    if (!this.ready) return;
    this.at[axis] = Math.max(0, Math.min(this.scan.shape[axis] - 1, to));
    this.at = this.at.map((value, i) => Math.max(0, Math.min(this.scan.shape[i] - 1, value)));
    this.middle = this.middle.map((value, i) => { // the cross stays in sight
      const out = Math.abs(this.at[i] + 0.5 - value) > this.scan.shape[i] / this.zoom / 2 + 0.5;
      return out ? this.at[i] + 0.5 : value;
    });
    this.hold();
  }

  draw() {
    if (!this.ready) return;
    this.planes.forEach((plane) => this.drawPlane(plane));
    this.find("zoom").textContent = `${Number(this.zoom.toPrecision(2))}×`;
    const [, ny, nx] = this.scan.shape;
    const [z, y, x] = this.at;
    const place = (z * ny + y) * nx + x;
    const { low, step, type } = this.scan.image;
    // bytes end where the window of a report does, and int16 where a scan that is no CT is far out of its window
    const [least, most] = type === "int16" ? [-32768, 32767] : [0, 255];
    const bound = { [least]: "at most ", [most]: "at least " }[this.image[place]] ?? "";
    const said = (labels) => this.scan.labels[labels[place]] ?? `label ${labels[place]}`;
    const numbers = this.at.map((value, axis) => this.scan.first[axis] + value * this.scan.every[axis] + 1);
    const lines = [
      `${this.scan.title}: slice ${numbers[0]} of ${this.scan.whole[0]} from the feet, ` +
        `row ${numbers[1]} from the front, column ${numbers[2]} from the right`,
      `${bound}${this.said(low + step * this.image[place])} ${this.scan.unit}`,
    ];
    if (this.reference) lines.push(`reference: ${said(this.reference)}`);
    lines.push(`prediction: ${said(this.prediction)}`);
    this.find("readout").textContent = lines.join("; ");
  }

  // A value in as many digits as its window tells apart: whole numbers where it is wide.
  said(value) {
    const [low, high] = this.scan.window;
    const digits = 2 - Math.floor(Math.log10(high - low));
    return digits > 9 ? value.toPrecision(4) : value.toFixed(Math.max(0, digits));
  }

  // The value of a voxel of this plane's current slice, by row and column as drawn.
  indexer(plane) {
    const { shape } = this.scan;
    const strides = [shape[1] * shape[2], shape[2], 1];
    const base = this.at[plane.through] * strides[plane.through];
    const last = shape[plane.down] - 1;
    return (row, column) =>
      base + (plane.flip ? last - row : row) * strides[plane.down] + column * strides[plane.across];
  }

  drawPlane(plane) {
    const { shape, spacing, colours, image } = this.scan;
    const [rows, columns] = [shape[plane.down], shape[plane.across]];
    const place = this.indexer(plane);
    const { level, width } = this.window;
    const picture = new ImageData(columns, rows);
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const at = place(row, column);
        const out = 4 * (row * columns + column);
        const grey = (255 * (image.low + image.step * this.image[at] - level + width / 2)) / width;
        const label = this.shown.prediction ? this.prediction[at] : 0;
        for (let channel = 0; channel < 3; channel++) {
          const paint = label ? colours[(label - 1) % colours.length][channel] : 0;
          const clipped = Math.max(0, Math.min(255, grey));
          picture.data[out + channel] = label && this.filled ? clipped + this.opacity * (paint - clipped) : clipped;
        }
        picture.data[out + 3] = 255;
      }
    }
    const { canvas } = plane;
    const dense = window.devicePixelRatio || 1;
    const wide = Math.max(1, Math.round(canvas.clientWidth * dense));
    const high = Math.max(1, Math.round((wide * rows * spacing[plane.down]) / (columns * spacing[plane.across])));
    if (canvas.width !== wide || canvas.height !== high) [canvas.width, canvas.height] = [wide, high];
    const buffer = new OffscreenCanvas(columns, rows);
    buffer.getContext("2d").putImageData(picture, 0, 0);
    const pen = canvas.getContext("2d");
    pen.imageSmoothingEnabled = true;
    const seen = this.seen(plane);
    const scale = [high / seen.rows, wide / seen.columns];
    pen.setTransform(1, 0, 0, 1, -seen.left * scale[1], -seen.top * scale[0]);
    pen.drawImage(buffer, 0, 0, columns * scale[1], rows * scale[0]);
    if (this.shown.prediction) this.outline(pen, plane, this.prediction, scale, true, dense);
    if (this.shown.reference && this.reference) this.outline(pen, plane, this.reference, scale, false, 2 * dense);
    this.crosshair(pen, plane, scale, dense);
    pen.resetTransform();
    this.ends(pen, plane, dense);
    plane.slider.value = this.at[plane.through];
    const number = this.scan.first[plane.through] + this.at[plane.through] * this.scan.every[plane.through] + 1;
    const text = `${plane.name} ${number} of ${this.scan.whole[plane.through]}`;
    plane.box.querySelector("span").textContent = text;
    plane.slider.setAttribute("aria-valuetext", text);
    canvas.dataset.slice = this.at[plane.through];
  }

  // Lines on the edges between voxels of different labels; dashed ones leave out two edges of four.
  outline(pen, plane, labels, [tall, wide], dashed, thick) {
    const { shape, colours } = this.scan;
    const [rows, columns] = [shape[plane.down], shape[plane.across]];
    const place = this.indexer(plane);
    const value = (row, column) =>
      row < 0 || column < 0 || row >= rows || column >= columns ? 0 : labels[place(row, column)];
    const paths = new Map();
    const line = (label, x0, y0, x1, y1) => {
      if (!label) return;
      if (!paths.has(label)) paths.set(label, new Path2D());
      paths.get(label).moveTo(x0 * wide, y0 * tall);
      paths.get(label).lineTo(x1 * wide, y1 * tall);
    };
    for (let row = 0; row <= rows; row++) {
      for (let column = 0; column <= columns; column++) {
        if (dashed && ((row + column) & 3) > 1) continue;
        const here = value(row, column);
        const [above, left] = [value(row - 1, column), value(row, column - 1)];
        if (here !== above) line(Math.max(here, above), column, row, column + 1, row);
        if (here !== left) line(Math.max(here, left), column, row, column, row + 1);
      }
    }
    for (const [label, path] of paths) {
      pen.lineWidth = thick + 1.5; // on bright tissue the colours need a dark rim
      pen.strokeStyle = "rgba(0, 0, 0, 0.6)";
      pen.stroke(path);
      pen.lineWidth = thick;
      pen.strokeStyle = `rgb(${colours[(label - 1) % colours.length].join()})`;
      pen.stroke(path);
    }
  }

  crosshair(pen, plane, [tall, wide], dense) {
    const { shape } = this.scan;
    const row = plane.flip ? shape[plane.down] - 1 - this.at[plane.down] : this.at[plane.down];
    const [x, y, gap] = [(this.at[plane.across] + 0.5) * wide, (row + 0.5) * tall, 8 * dense];
    const [right, bottom] = [shape[plane.across] * wide, shape[plane.down] * tall];
    pen.beginPath();
    for (const [x0, y0, x1, y1] of [[0, y, x - gap, y], [x + gap, y, right, y],
      [x, 0, x, y - gap], [x, y + gap, x, bottom]]) {
      pen.moveTo(x0, y0);
      pen.lineTo(x1, y1);
    }
    for (const [thick, colour] of [[3, "rgba(0, 0, 0, 0.5)"], [1, "#fff"]]) {
      pen.lineWidth = thick * dense;
      pen.strokeStyle = colour;
      pen.stroke();
    }
  }

  ends(pen, plane, dense) {
    const { width, height } = pen.canvas;
    const far = 10 * dense;
    pen.font = `${14 * dense}px sans-serif`;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.lineWidth = 3 * dense;
    const places = [[far, height / 2], [width - far, height / 2], [width / 2, far], [width / 2, height - far]];
    plane.ends.forEach((letter, i) => {
      pen.strokeStyle = "#000";
      pen.fillStyle = "#fff";
      pen.strokeText(letter, ...places[i]);
      pen.fillText(letter, ...places[i]);
    });
  }
}

document.querySelectorAll("table[data-sortable]").forEach(sortable);
const root = document.getElementById("viewer");
if (root) {
  const scans = JSON.parse(document.getElementById("scans").textContent);
  const viewer = new Viewer(root, scans);
  document.querySelectorAll("button[data-scan]").forEach((button) => {
    button.addEventListener("click", () => {
      viewer.open(Number(button.dataset.scan));
      root.scrollIntoView({ block: "nearest" });
      root.querySelector("canvas").focus();
    });
  });
  viewer.open(0);
}
