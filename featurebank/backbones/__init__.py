"""Backbones: frozen networks by name, their layers, and the engines that run them."""
