"""What recommending needs: the matrix of who used what, its factors on CPU and GPU, and how a ranking is scored."""
