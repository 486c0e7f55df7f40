"""Files and objects: written whole or not at all, locked, leased; nothing else of the library writes."""
