"""The asl study: perfusion and transit time from multi-delay PCASL and VSASL signals."""
