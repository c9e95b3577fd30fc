"""Images: the environment of every run, built from the Dockerfile and the lock; open it to find `assay image build`."""
