"""What is ordered."""

from django.db import models


class Order(models.Model):
    """One line."""

    what = models.CharField(max_length=20, unique=True)
