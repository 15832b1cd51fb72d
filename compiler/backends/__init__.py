"""Loop IR to LLVM IR, for processors and for PTX."""
