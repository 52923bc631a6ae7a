"""The study of image encoders by reconstruction (supplement, section B): which features keep detail, which alignment.

:mod:`.config` constants, :mod:`.encoders` frozen backbones, :mod:`.decoder` features to pictures, :mod:`.pairs` data,
:mod:`.study` training and measuring, :mod:`.report` Table 1 and Fig. 2.
"""
