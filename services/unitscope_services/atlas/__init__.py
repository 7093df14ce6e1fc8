"""An atlas opened for reading: its tables, its images, patches cut from them; nothing is computed in this room."""
