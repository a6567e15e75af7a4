"""What a model costs on a day: dated prices from genai-prices, the shipped table and the user's own."""

from tierwise.prices.book import PriceBook

__all__ = ["PriceBook"]
