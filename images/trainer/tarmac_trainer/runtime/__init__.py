"""What every step runs on: its request, its errors and events, the device, signs of life, a training as it goes."""
