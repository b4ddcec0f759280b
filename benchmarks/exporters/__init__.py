"""The second zoo of the coverage study: small random models as many exporters and graph tools write them."""
