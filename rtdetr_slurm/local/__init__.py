"""The same plan on this machine: a detached process runs the stages, in the order that their
dependencies ask for. Standard library only."""
