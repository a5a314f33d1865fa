"""Configurations as data; stackconf reads the YAML files of this folder."""
