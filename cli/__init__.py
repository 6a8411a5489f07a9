"""The command `sgn`: parse, call one function of the library, render."""
