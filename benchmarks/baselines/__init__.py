"""Programs that equipoise is measured against. Nothing in the library uses them."""
