"""Where in the network's input the stand-in looks, shared with the decoder, which imports no more than it has to."""

from typing import Final

from lookalike.decode import INPUT_SIZE

DIM: Final = 16
STRIDE: Final = INPUT_SIZE * INPUT_SIZE * 3 // DIM  #: One byte of the input in so many is a value of the vector.
