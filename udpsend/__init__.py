"""udpsend."""
