"""Where bytes come from: a serial port, a capture, a simulated meter."""
