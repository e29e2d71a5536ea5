DROP TABLE promotion, promoted_model;
DROP FUNCTION continue_promotions, refuse_rewriting;
