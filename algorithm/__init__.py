"""What runs in the hospital: from a CT scan to a label map on the same grid."""
