"""Live views of a Mixer: each is one call, ``explore_mixing(model)``, drawn by the browser from data sent once.

Every control is a trait of the widget (``view.block = 2``, ``observe``, ``jslink``), numbered as in the model: the
first block, unit and patch is 0. Where nothing live can be shown (GitHub, nbconvert), a picture of the first state
stands in.
"""

from mixer_utils.widgets.digit import draw_digit
from mixer_utils.widgets.embedding import explore_embedding
from mixer_utils.widgets.influence import explore_influence
from mixer_utils.widgets.learn import train_in_browser
from mixer_utils.widgets.mixing import explore_mixing
from mixer_utils.widgets.mixing import untrained as untrained  # notebook 07 compares with it
from mixer_utils.widgets.network import explore
from mixer_utils.widgets.training import explore_training

__all__ = ["explore", "draw_digit", "explore_influence", "explore_mixing", "explore_embedding", "explore_training",
           "train_in_browser"]  # fmt: skip
