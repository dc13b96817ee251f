"""What can go wrong in a shop."""


class OutOfStock(Exception):  # noqa: N818
    """There is less of an article than was ordered."""

    def __init__(self, sku, wanted):
        super().__init__(sku, wanted)
        self.sku = sku
        self.wanted = wanted


class GatewayBusy(Exception):  # noqa: N818
    """The payment gateway asks to come back later."""
