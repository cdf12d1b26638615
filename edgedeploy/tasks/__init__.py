"""Tasks that ship with edgedeploy: synthetic B-mode ultrasound, and image/mask folders."""
