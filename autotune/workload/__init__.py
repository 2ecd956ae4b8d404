"""What is trained, behind one door: the protocol, the built-in GPT, and the space bound to either."""
