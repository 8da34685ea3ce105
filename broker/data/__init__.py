"""The data types that everything above shares, and what identifies them.

What belongs here knows neither Kafka nor Redis, and computes nothing about the sky.
"""
