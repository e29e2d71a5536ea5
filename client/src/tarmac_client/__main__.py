"""`python -m tarmac_client` is the command `tarmac`."""

from tarmac_client.start import run

if __name__ == "__main__":
    run()
