"""Ways of answering with the edit memory, one file each; :mod:`memory.registry` lists them."""
