"""Study files that ship with edgedeploy."""
