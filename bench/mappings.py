"""Mappings to measure: what a site without, with usual and with costly rules would configure."""

#: No mapping at all: nothing is renamed, nothing is checked.
NONE = """
[validation]
types = "forward"
"""

#: The 17 standard events and 20 overrides, as a shop would have them; of these, four find something
#: in each event of the load (a renamed value, a renamed id, a constant, and what is absent).
ECOMMERCE = """
[mapping]
preset = "ecommerce"

[mapping.global]
"userId" = ["userId", "traits.customer_id", "properties.member_no"]
"properties.total" = "properties.value"
"properties.order_id" = ["properties.orderId", "properties.order_no"]
"properties.checkout_id" = "properties.cart_id"
"properties.coupon" = "properties.voucher"
"properties.discount" = "properties.rebate"
"properties.shipping" = "properties.delivery_cost"
"properties.tax" = "properties.vat"
"properties.revenue" = "properties.turnover"
"properties.affiliation" = "properties.partner"
"properties.query" = { from = "properties.search_term", transform = ["trim", "lower"] }
"properties.list_id" = "properties.listId"
"properties.category" = "properties.department"
"properties.brand" = "properties.maker"
"properties.variant" = "properties.option"
"properties.promotion_id" = "properties.banner"
"properties.payment_method" = "properties.payment"
"properties.step" = { from = "properties.checkout_step", transform = "round" }
"properties.email_sha256" = { from = "properties.email", transform = "sha256" }
"properties.shop" = { value = "de" }
"""

#: One computed field in every event.
EXPRESSION = """
[mapping.global]
"properties.cents" = { expr = "properties.value * 100" }
"""
