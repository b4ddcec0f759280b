"""One zip with models, fixed inputs, expected outputs and a script that times them on a device."""
