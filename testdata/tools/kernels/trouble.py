"""What keeps the harness from running, as opposed to a kiln that fails."""
import os

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


class Missing(Exception):
    """Something that the harness needs and the machine lacks, named."""
