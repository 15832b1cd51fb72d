"""Register-tiled inner kernels for contractions."""
