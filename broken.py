
nope
