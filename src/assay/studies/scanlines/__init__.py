"""The scanlines study: which state an STM tip is in, from a whole image and line by line while it is scanned."""
