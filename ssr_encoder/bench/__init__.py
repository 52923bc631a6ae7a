"""Benchmarks as data, metrics, a runner and its reports (supplement, sections C.2, E, G, H, L)."""
