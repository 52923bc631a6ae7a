"""The demonstration: every subject of the shipped reference pictures in new scenes, as a contact sheet and a page."""
