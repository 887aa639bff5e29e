"""Sources: where documents come from. A source lists entries; `files.FilesReader` reads them."""
