"""At scale, simulated: many processes under one limit, many shares of one dataset, very large objects."""
