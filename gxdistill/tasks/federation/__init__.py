"""Sites that learn together: to segment, in rounds; or one distilled set, by its meta-gradients."""
