"""User space's half: the pseries machine, image loading, device tree, RTAS, console."""
