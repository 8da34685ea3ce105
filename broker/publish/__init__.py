"""Packets out."""
