"""The library inside other people's programs, one file each. Nothing in the library knows them."""
