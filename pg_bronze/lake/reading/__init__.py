"""Reading: the objects of one table as one Polars LazyFrame, across altered columns and generations."""
