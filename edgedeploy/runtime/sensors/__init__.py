"""What a board says of itself: processor, power, temperature, clocks, power modes."""
