"""Workers and frontends scraped at their own pages."""
