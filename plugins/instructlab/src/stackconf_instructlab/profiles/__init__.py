"""Configurations for machines, as data; `stackconf configurations list` says which fit."""
