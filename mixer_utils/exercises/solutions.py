"""A solution of every exercise, as a student would write it in the notebook: ``ex.solution("02.1")`` shows one.

Each function has the name and the parameters of its stub and can be pasted over it: it uses what the notebook has imported.
A teacher who removes this file hides the solutions; the checks do not need it.
"""

import math

import numpy as np
import torch
from torch.nn import functional as F

SOLUTIONS = {}

# --- notebook 00 ----------------------------------------------------------------------------------------------------


SOLUTIONS |= {}


# --- notebook 01 ----------------------------------------------------------------------------------------------------


SOLUTIONS |= {}


# --- notebook 02 ----------------------------------------------------------------------------------------------------


SOLUTIONS |= {}


# --- notebook 03 ----------------------------------------------------------------------------------------------------


SOLUTIONS |= {}


# --- notebook 04 ----------------------------------------------------------------------------------------------------


SOLUTIONS |= {}


# --- notebook 05 ----------------------------------------------------------------------------------------------------


SOLUTIONS |= {}


# --- notebook 06 ----------------------------------------------------------------------------------------------------


SOLUTIONS |= {}


# --- notebook 07 ----------------------------------------------------------------------------------------------------


SOLUTIONS |= {}


# --- notebook 10 ----------------------------------------------------------------------------------------------------


SOLUTIONS |= {}


