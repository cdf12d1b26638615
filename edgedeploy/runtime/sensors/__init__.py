"""Reads a board's sensors and properties: processor, power, temperature, clocks, power modes."""
