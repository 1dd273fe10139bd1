"""How good a placement is, proved: bounds that no placement beats, and a checker that trusts nothing."""

from equipoise.certificate.bounds import BOUNDS, lower_bounds
from equipoise.certificate.certificate import Certificate, certify
from equipoise.certificate.check import check_placement

__all__ = ["BOUNDS", "Certificate", "certify", "check_placement", "lower_bounds"]
