"""Raw NTU RGB+D skeletons to a trained SGN action recogniser, on a Ray cluster."""
