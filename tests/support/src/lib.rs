//! Black-box companions of Fairlead.
