"""What a program will need on devices that are not there: chips, topologies, costs."""
